"""The opset of every graph that is written here; apart, so that graphs made without PyTorch need
none of it."""

OPSET = 18
