"""What is reached without a network: printed beside every figure of a trained model."""
