"""What a network withstands: accuracies, the loss around images, and how results are kept."""
