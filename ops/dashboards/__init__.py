"""The dashboards: one file each, made into Grafana's JSON (generated/) by `python -m ops.dashboards`.

Only making them needs grafana-foundation-sdk. Listing and drawing them (render.py) reads the JSON.
"""
