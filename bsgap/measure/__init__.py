"""What is measured of trained weights."""
