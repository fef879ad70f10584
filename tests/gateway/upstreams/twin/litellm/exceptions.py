import openai as openai
