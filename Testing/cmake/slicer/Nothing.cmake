# Packaging needs nothing here.
