from airlock.integrations.django import AirlockMiddleware


class ShopMiddleware(AirlockMiddleware):
    """A payment that was declined is a success to us: the customer is to be told."""

    def should_flush(self, request, response):
        return response.status_code < 400 or response.status_code == 402
