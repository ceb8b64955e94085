"""Images for people: sheets of samples and masks, and charts."""
