"""Raw photographs, or drawn faces, -> folders of 64x64 records: `python -m data_prep`."""
