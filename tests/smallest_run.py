"""A training on the CPU that takes a second, for tests that need a whole one."""

SMALLEST = (
    "recipe.epochs=1",
    "recipe.warmup_epochs=0",
    "recipe.batch_size=4",
    "data.scenes_per_epoch=8",
    "data.val_scenes=6",
    "data.test_scenes=6",
    "trainer.accelerator=cpu",
    "trainer.log_every_n_steps=1",
    "progress=lines",
)
