"""Programs that show Nova at work; each runs from the root of the checkout."""
