"""The model: encoder, heads, connector, language model, checkpoint. Tensors only."""
