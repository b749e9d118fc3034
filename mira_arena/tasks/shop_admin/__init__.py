"""Tasks in the shop's admin panel."""

from mira_arena.tasks.shop_admin import catalogue, customer_service, orders_and_prices, reporting

TEMPLATES = (*orders_and_prices.TEMPLATES, *catalogue.TEMPLATES, *customer_service.TEMPLATES, *reporting.TEMPLATES)
