"""Make the FastAPI application; it gets its routes once the parts behind them are open."""

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from fastapi import FastAPI

from hybridserve_llm.server.error_responses import install_error_handlers
from hybridserve_llm.server.parts import Parts
from hybridserve_llm.server.routes import build_routes


def create_app(open_parts: Callable[[], AbstractAsyncContextManager[Parts]]) -> FastAPI:
    """Return the application over the parts that `open_parts` holds open while it runs."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_parts() as parts:
            app.state.parts = parts
            app.include_router(build_routes(parts))
            yield

    app = FastAPI(title="HybridServe-LLM", lifespan=lifespan, docs_url=None, redoc_url=None)
    install_error_handlers(app)
    return app
