"""The image viewer: a canvas in the browser (`src/`, `viewer.js`) and what the page sees of it."""
