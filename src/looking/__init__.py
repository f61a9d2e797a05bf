"""Do points go to objects? Measured on images with masks.

masks.py       images with objects: digit scenes, or any folder of images and masks
measures.py    what one network does on them, image by image
rows.py        a row a run, epoch, block, group and region; what is kept of the single images
findings.py    claims, their intervals, and what may be said of them: the rule
answer.py      what may be said, in sentences; tables.py, figure.py, page.py: all that is told of a study
points.py      points on a few images, with masks or without, as a run leaves them behind
pictures.py    those drawn, while a network trains
"""
