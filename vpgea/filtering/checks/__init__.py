"""The checks of the cross-view evaluation, one file each; `registry` lists them."""
