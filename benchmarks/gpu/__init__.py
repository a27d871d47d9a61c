"""What needs a GPU: the paper's networks at full scale, and the fastest way to serve them."""
