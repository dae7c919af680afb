"""The reviewer's web page: renders and calls, holds no tensor and no DICOM logic."""
