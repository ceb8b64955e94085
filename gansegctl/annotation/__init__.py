"""Images out to people, masks back in: the bundle, readers of every format, and the page to paint on."""
