"""Prepares data: raw photographs, or built-in faces, become data folders of 64x64 records. See `python -m data_prep`."""
