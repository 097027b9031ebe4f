"""Several worker processes under one supervisor: started, watched, replaced, ended."""
