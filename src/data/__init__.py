"""What the networks look at: one LightningDataModule per data set, all with the same promises.

base.py          `ImageData`: what the trainer may ask of any data set; `DataError`
samplers.py      which process sees which item
splits.py        fixed, stratified partitions
scenes.py        cluttered scenes: plan and render
digits.py        ... of real handwritten digits (the default; nothing to download)
images.py        plain and augmented images from any source
small_images.py  what the small benchmarks share
fashion_mnist.py, cifar.py
files.py         image files, and trees with one folder per class
augment.py       DeiT's transforms
folder.py, imagenet.py, elpv.py
"""
