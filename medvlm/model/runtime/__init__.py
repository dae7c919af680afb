"""The same model, made ready to run fast: ONNX Runtime for the encoders and the language model.

Built once from a checkpoint and the language model's weights, checked against PyTorch, and kept in
the user's cache (`artefact`); `load` opens a checkpoint with it.
"""
