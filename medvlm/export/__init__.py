"""A report in the forms that other programs take: text, JSON, PDF, DICOM SR, FHIR.

Everything is made from a `medvlm.review.records.Report` in memory; nothing here reads a file, and
only `files.write_all` writes any. What a person or a model wrote is data in every form.
"""
