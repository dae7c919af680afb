"""Fine-tuning at a site: from a folder of studies and reports to a candidate checkpoint."""
