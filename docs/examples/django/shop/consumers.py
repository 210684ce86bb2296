import airlock
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer

from shop.views import place_order


class CheckoutConsumer(AsyncJsonWebsocketConsumer):
    @airlock.scoped  # one scope for each message
    async def receive_json(self, content):
        order = await database_sync_to_async(place_order)(content["email"])
        if content["card"] == "declined":
            raise ValueError("Your card was declined.")
        await self.send_json({"order": order.pk})
