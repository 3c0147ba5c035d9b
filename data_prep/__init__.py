"""Raw photographs, or built-in faces, become data folders of 64x64 records: `python -m data_prep`."""
