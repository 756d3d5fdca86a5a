"""Code for one socket: runs consumers, and knows which of them are in which group. It must not know facilities."""
