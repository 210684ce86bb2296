from django import forms

from shop.models import Product
from shop.payments import Card


class CheckoutForm(forms.Form):
    product = forms.ModelChoiceField(Product.objects.order_by("pk"), empty_label=None)
    quantity = forms.IntegerField(min_value=1, max_value=20, initial=1)
    email = forms.EmailField(label="E-mail address", initial="ada@example.org")
    card = forms.TypedChoiceField(coerce=Card, choices=Card.choices)
