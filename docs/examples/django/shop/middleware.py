from airlock.integrations.django import AirlockMiddleware


class ShopMiddleware(AirlockMiddleware):
    """Sends e-mails about declined payments (status 402), too."""

    def should_flush(self, request, response):
        return response.status_code < 400 or response.status_code == 402
