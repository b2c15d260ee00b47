"""What is computed on the devices: the two networks, their losses, and the scores that follow from them."""
