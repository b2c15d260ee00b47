"""Any folder of images of one's own."""
