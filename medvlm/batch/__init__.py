"""Many studies: where they come from, how they are drafted, what becomes of them."""
