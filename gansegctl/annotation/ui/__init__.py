"""The local annotation page: a journal of strokes, a session over it, a guarded server, and one static page.

`journal`, `mask_history`, `backend`, `refit` and `session` need nothing beyond numpy and Pillow; `security`, `app` and
`serve` need the extra `ui` (starlette, uvicorn) and are imported only when a page is asked for.
"""
