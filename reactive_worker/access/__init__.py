"""Who asks: keys and tokens, and how they are kept out of what is printed."""
