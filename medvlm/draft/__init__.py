"""From an image to a draft: sentences, what they mean, and the files people read."""
