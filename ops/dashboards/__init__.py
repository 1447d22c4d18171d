"""The dashboards, one file each. `python -m ops.dashboards` generates Grafana's JSON (generated/) from them.

Only the generation needs grafana-foundation-sdk; list and render (render.py) read the JSON.
"""
