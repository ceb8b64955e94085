"""Files that users hand in: generators, images, labelled sets. One reader a kind."""
