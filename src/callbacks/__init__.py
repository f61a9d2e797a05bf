"""What watches a training: randomness, speed and offsets."""
