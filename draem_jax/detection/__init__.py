"""What a trained run says of new images: scores, decisions, regions."""
