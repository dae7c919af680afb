"""From an image to a draft: sentences, their meaning, the checks on them and the files people read."""
