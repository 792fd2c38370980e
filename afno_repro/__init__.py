"""afno_repro: the tables and figures of the AFNO paper, regenerated from YAML experiment specs."""

__version__ = "0.1.0"
