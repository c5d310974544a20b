"""The only room that knows everybody: settings in, wired system out. One module for each kind of process of a site."""
