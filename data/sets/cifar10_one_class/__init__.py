"""CIFAR-10, one class against the others."""
