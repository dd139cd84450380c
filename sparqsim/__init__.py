"""Sparqsim: a discrete-event simulator of quantized and sparse neural-network accelerators."""
