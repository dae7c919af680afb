"""The desk: taking studies in, the viewer's pixels, the drafting process. No torch in the page."""
