"""The service: studies, drafts and questions over HTTP, for other programs."""
