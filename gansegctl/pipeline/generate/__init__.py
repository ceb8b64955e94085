"""`gansegctl generate`: seeds to shards of images, or of image/mask pairs."""
