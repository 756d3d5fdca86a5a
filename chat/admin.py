"""The chat rooms in Django's admin: to find what was said, and to take it out.

A message is not added or numbered by hand, for the pages that are open would not be told; one that is deleted is gone
from a page when it is loaded anew.
"""

from django.contrib import admin

from chat.models import Message, ReadMark, Room


@admin.register(Room)
class RoomAdmin(admin.ModelAdmin):
    list_display = ["slug", "last_number", "created_at"]
    search_fields = ["slug"]
    date_hierarchy = "created_at"
    readonly_fields = ["created_at", "last_number"]

    def get_readonly_fields(self, request, obj=None):
        # A room that changed its name would be another one to whoever is in it.
        return [*self.readonly_fields, *(["slug"] if obj else [])]

    def view_on_site(self, room):
        return room.get_absolute_url()


@admin.register(Message)
class MessageAdmin(admin.ModelAdmin):
    list_display = ["room", "number", "author", "beginning", "sent_at"]
    list_display_links = ["number"]
    list_filter = ["sent_at", ("room", admin.RelatedOnlyFieldListFilter)]
    list_select_related = ["room", "author"]
    search_fields = ["text", "author__username", "room__slug"]
    search_help_text = "Words of the text, a name or a room"
    date_hierarchy = "sent_at"
    ordering = ["-sent_at", "-pk"]
    fields = readonly_fields = ["room", "number", "author", "text", "sent_at"]
    show_full_result_count = False

    @admin.display(description="text")
    def beginning(self, message):
        return message.text if len(message.text) <= 80 else f"{message.text[:79]}…"

    def has_add_permission(self, request):
        return False


@admin.register(ReadMark)
class ReadMarkAdmin(admin.ModelAdmin):
    list_display = ["user", "room", "number"]
    list_select_related = ["user", "room"]
    search_fields = ["user__username", "room__slug"]
    fields = readonly_fields = ["user", "room", "number"]

    def has_add_permission(self, request):
        return False
