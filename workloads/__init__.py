"""The software half of co-design: layers, tensors, number formats, quantization, pruning."""
